"""What a reader sees of a page of the status port."""

import datetime as dt
import re

LATER = dt.timedelta(hours=3, minutes=12)
"""When the page is looked at, after ``now``."""


def text_of(html: str) -> str:
    """What a reader sees."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.DOTALL).split())


def rows(html: str) -> list[str]:
    """The text of each row of the first table."""
    body = re.search(r"<tbody>(.*?)</tbody>", html, re.DOTALL)
    return [text_of(row) for row in re.findall(r"<tr>(.*?)</tr>", body[1] if body else "", re.S)]
