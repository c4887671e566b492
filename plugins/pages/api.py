"""The wire of the pages that mailed links open, and their script and style."""
from typing import Literal

from orkosi import PUBLIC, Document
from plugins.docs.openapi import PAGE_POLICY
from plugins.pages import asset, plugin

HTML = "text/html; charset=utf-8"


@plugin.get("/invite/{token}", auth=PUBLIC)
def invite(token: str) -> Document:
    """The page of an invitation's link; its forms register, or log in and accept"""
    return Document(asset("invite.html"), HTML, PAGE_POLICY)


@plugin.get("/reset/{token}", auth=PUBLIC)
def reset(token: str) -> Document:
    """The page of a forgotten password's link; its form posts to /api/auth/reset-password"""
    return Document(asset("reset.html"), HTML, PAGE_POLICY)


@plugin.get("/verify/{token}", auth=PUBLIC)
def verify(token: str) -> Document:
    """The page of a new address's link; its form posts to /api/auth/verify-email"""
    return Document(asset("verify.html"), HTML, PAGE_POLICY)


@plugin.get("/billing/{page}", auth=PUBLIC)
def billing(page: Literal["done", "cancelled"]) -> Document:
    """The page that Stripe sends people back to, after a payment or without one"""
    return Document(asset(f"billing-{page}.html"), HTML, PAGE_POLICY)


@plugin.get("/pages/{file}", auth=PUBLIC)
def files(file: Literal["pages.js", "pages.css"]) -> Document:
    """The script and the style of the pages"""
    return Document(asset(file), "text/javascript" if file.endswith("js") else "text/css", PAGE_POLICY)
