"""Full resource names. A setting may hold a short name (`order-events`) or a full one (`projects/p/topics/order-events`)."""


def topic_name(project: str, setting: str) -> str:
    """`projects/{project}/topics/{setting}`; a setting that is a full name already is returned as it is."""
    return _full_name(project, "topics", setting)


def subscription_name(project: str, setting: str) -> str:
    """`projects/{project}/subscriptions/{setting}`; a setting that is a full name already is returned as it is."""
    return _full_name(project, "subscriptions", setting)


def short_name(full_name: str) -> str:
    """The last part of a full name."""
    return full_name.rpartition("/")[2]


def project_of(full_name: str) -> str:
    """The project in a full name."""
    return full_name.split("/")[1]


def _full_name(project: str, kind: str, setting: str) -> str:
    if not setting.startswith("projects/"):
        return f"projects/{project}/{kind}/{setting}"
    parts = setting.split("/")
    if len(parts) != 4 or parts[2] != kind or not all(parts):
        raise ValueError(f"{setting!r} is not a full name of the form projects/PROJECT/{kind}/NAME")
    return setting
