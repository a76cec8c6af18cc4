"""A person at the portal, without a browser: signs in, opens pages, fills in the portal's own forms."""

import html
import re

import requests

TIMEOUT = 20


class Refused(Exception):
    """The portal did not do what the person asked; the message is what the page says."""


class Person:
    """One signed-in person. What the browser would do is done here: cookies, the CSRF token, following the answer."""

    def __init__(self, server: str, name: str, password: str) -> None:
        self.server, self.name, self.password = server, name, password
        self.session = requests.Session()
        self.session.trust_env = False
        self.submit("/login/", username=name, password=password)

    def page(self, path: str) -> str:
        """Return a page as text; raise `Refused` with its status when it is not given."""
        answer = self.session.get(self.server + path, timeout=TIMEOUT)
        if answer.status_code != 200:
            raise Refused(f"{path} answered {answer.status_code}")
        return answer.text

    def words(self, path: str) -> str:
        """Return what a page says, without its markup."""
        text = re.sub(r"<(script|style)\b.*?</\1>", " ", self.page(path), flags=re.DOTALL)
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())

    def status_of(self, path: str) -> int:
        return self.session.get(self.server + path, timeout=TIMEOUT, allow_redirects=False).status_code

    def submit(self, path: str, files: dict[str, tuple[str, bytes]] | None = None, **fields: str) -> None:
        """Fill in the form of a page and send it; a form that comes back was not accepted."""
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.page(path))
        if token is None:
            raise Refused(f"{path} has no form for {self.name}")
        answer = self.session.post(
            self.server + path,
            data={"csrfmiddlewaretoken": token.group(1), **fields},
            files=files,
            headers={"Referer": self.server + path},
            timeout=TIMEOUT,
            allow_redirects=False,
        )
        if answer.status_code != 302:
            said = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())
            raise Refused(f"{path} answered {answer.status_code}: {said[-600:]}")

    def decide(self, proposal: int, decision: str, reason: str) -> None:
        self.submit(f"/proposals/{proposal}/", decision=decision, reason=reason, password=self.password)

    @property
    def cookie(self) -> str:
        return "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.session.cookies)
