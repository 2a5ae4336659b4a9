"""Log-in through an OpenID provider of another make (npm oidc-provider), by a person with a browser."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from bench.running import serve

_PROVIDER = Path(__file__).resolve().parents[2] / "deploy" / "dev" / "oidc"


@pytest.fixture(scope="session")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a console whose people come from the provider."""
    folder = tmp_path_factory.mktemp("sign-on")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    redirect, secret = f"http://127.0.0.1:{port}/console/oidc/callback", "s3cret of+the/browser test"
    (folder / "secret").write_text(secret, encoding="utf-8")
    provider = subprocess.Popen(
        ["node", "provider.mjs", redirect, secret],
        cwd=_PROVIDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert provider.stdout is not None
        # Among its warnings that it is one for development.
        issuer = next((line.strip() for line in provider.stdout if line.startswith("http://")), "")
        assert issuer, "deploy/dev/oidc/oidc.sh installs the provider"
        settings = f"""
[console.oidc]
issuer = "{issuer}"
client_id = "neutroflag"
client_secret_file = "{folder / "secret"}"
redirect_url = "{redirect}"
label = "CHX"
roles = {{ nf-clinician = "clinician", nf-operator = "operator" }}
"""
        with serve(folder / "engine", settings=settings, http_port=port) as engine:
            yield f"http://127.0.0.1:{engine.http_port}/console"
    finally:
        provider.communicate("")


def log_in(page: Page, console: str, name: str, target: str = "") -> None:
    page.goto(console + target)
    page.click("a.button[href*='/console/oidc/start']")
    page.fill("input[name=login]", name)
    page.fill("input[name=password]", "whatever")
    page.click("button[type=submit]")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_clinician_comes_back_to_the_page_that_was_wanted_and_leaves_again(
    console: str, visit: Any, scripts: bool
) -> None:
    page = visit(scripts=scripts)
    log_in(page, console, "clinician.dupont", "/patients")
    page.wait_for_url(f"{console}/patients")
    expect(page.locator(".who")).to_contain_text("clinician.dupont")
    # The strict cookie came along: the next page is there as well.
    page.goto(f"{console}/today")
    expect(page.locator("h1")).to_be_visible()
    assert page.url == f"{console}/today"
    held = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert held["neutroflag_session"]["sameSite"] == "Strict"
    assert held["neutroflag_session"]["httpOnly"]
    assert "neutroflag_sign_on" not in held
    page.click(".who form[action='/console/logout'] button")
    page.wait_for_url(f"{console}/login?left=1")
    page.goto(f"{console}/today")
    expect(page).to_have_url(re.compile(r"/console/login\?next="))
    page.goto(f"{console}/login?left=1")
    page.click("a[href='/console/oidc/leave']")
    expect(page).to_have_url(re.compile(r"/session/end\?client_id=neutroflag"))


def test_somebody_without_a_role_is_told_so(console: str, visit: Any) -> None:
    page = visit()
    log_in(page, console, "visitor.durand")
    expect(page.get_by_role("alert").first).to_contain_text("aucun rôle")
    page.goto(f"{console}/today")
    expect(page).to_have_url(re.compile(r"/console/login"))


def test_the_log_in_page_keeps_nobody_out(console: str, visit: Any, serious: Any) -> None:
    page = visit()
    page.goto(f"{console}/login?left=1")
    assert serious(page) == []
