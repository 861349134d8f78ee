"""Cost reports as a page for people and as a table for programs."""

from execution.report.csv_file import write_csv
from execution.report.page import html, write_html

__all__ = ["html", "write_csv", "write_html"]
