"""Pages: the small pages a person opens in a browser, as the one that a mailed link leads to.

Owns no table. Surprise: the pages hold no logic of their own. They are forms over the JSON
routes, with their scripts in files, for the content policy allows no inline script.
"""
from functools import cache
from pathlib import Path

from orkosi import Plugin

plugin = Plugin("Pages", layer="views", needs=("docs", "users"))


@cache
def asset(name: str) -> bytes:
    """A file of `pages/`."""
    return (Path(__file__).parent / "pages" / name).read_bytes()
