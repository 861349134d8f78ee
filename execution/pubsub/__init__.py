"""The client side of Google Pub/Sub: a channel, a subscriber, a publisher, and what must exist before they start."""
