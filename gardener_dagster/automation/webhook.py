"""Send an alert to Slack or another web hook. ``alerts`` decides when."""

from dataclasses import asdict, dataclass
from typing import Literal
from urllib.parse import urlsplit

Format = Literal["slack", "json"]

SECONDS = 5.0
"""For a hook to answer."""


class WebhookError(RuntimeError):
    """An alert was not taken. The message leaves the address out: Slack's is a secret."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something that somebody should look at."""

    level: Literal["error", "warning"]
    title: str
    job: str  # what it is about: an asset, or several
    date: str  # or dates; "" where there is none
    reason: str
    link: str  # "" where Dagster's address is not known


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """Where alerts go.

    Args:
        url: Takes a POST.
        format: ``slack``: a text in Slack's markup, which Mattermost and others take too;
            ``json``: the fields of ``Alert``.
        dagster_url: Of Dagster's UI, for links; ``""``: none.
    """

    url: str
    format: Format
    dagster_url: str = ""

    @classmethod
    def of(cls, url: str, format: str = "", dagster_url: str = "") -> "Webhook":
        """A hook from what is configured.

        Args:
            url: Its address.
            format: ``slack`` or ``json``; empty: by the address.
            dagster_url: Of Dagster's UI, or empty.

        Raises:
            ValueError: Neither is what it should be.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"no address of a web hook: {url!r}: expected https://...")
        if not format:
            format = "slack" if parts.hostname == "hooks.slack.com" else "json"
        if format not in ("slack", "json"):
            raise ValueError(f"no format of a web hook: {format!r}: expected slack or json")
        return cls(url=url, format=format, dagster_url=dagster_url.rstrip("/"))  # type: ignore[arg-type]  # one of the two

    def run_link(self, run_id: str) -> str:
        """Where a run is looked at."""
        return f"{self.dagster_url}/runs/{run_id}" if self.dagster_url and run_id else ""

    def send(self, alert: Alert) -> None:
        """Tell it.

        Raises:
            WebhookError: It was not taken.
        """
        import requests  # only where there is something to tell: a run's process pays for imports

        body = slack_body(alert) if self.format == "slack" else asdict(alert)
        host = urlsplit(self.url).hostname
        try:
            response = requests.post(self.url, json=body, timeout=SECONDS)
        except requests.RequestException as error:
            # Its message has the address; so has that of its cause.
            raise WebhookError(f"the web hook at {host}: {type(error).__name__}") from None
        if not response.ok:
            raise WebhookError(f"the web hook at {host} answered {response.status_code}")


def slack_body(alert: Alert) -> dict[str, str]:
    """An alert as Slack shows it; nothing in it is markup but our own."""
    lines = [f"*{_escaped(alert.title)}*"]
    if alert.reason:
        lines += [f"> {_escaped(line)}" for line in alert.reason.splitlines()]
    if alert.link:
        lines.append(f"<{_escaped(alert.link)}|Open in Dagster>")
    return {"text": "\n".join(lines)}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
