"""Send an alert to Slack or another web hook. ``alerts`` decides when."""

from dataclasses import asdict, dataclass
from typing import Literal
from urllib.parse import urlsplit

Format = Literal["slack", "json"]

SECONDS = 5.0
"""Timeout of a request to the web hook."""


class WebhookError(RuntimeError):
    """An alert was not delivered. The message omits the URL: Slack's is a secret."""


@dataclass(frozen=True, kw_only=True)
class Alert:
    """A failure that a person should look at."""

    level: Literal["error", "warning"]
    title: str
    job: str  # the failed job or asset, or several assets
    date: str  # or a range of dates; "" if there is none
    reason: str
    link: str  # to the run in Dagster's UI; "" if Dagster's URL is not known


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """A web hook that receives alerts.

    Args:
        url: URL that accepts POST requests.
        format: ``slack``: text in Slack's markup, which Mattermost and others also accept;
            ``json``: the fields of ``Alert``.
        dagster_url: URL of Dagster's UI, for links; ``""``: no links.
    """

    url: str
    format: Format
    dagster_url: str = ""

    @classmethod
    def of(cls, url: str, format: str = "", dagster_url: str = "") -> "Webhook":
        """Create a hook from its settings.

        Args:
            url: URL of the hook.
            format: ``slack`` or ``json``; empty: ``slack`` if the host is Slack's, else ``json``.
            dagster_url: URL of Dagster's UI, or empty.

        Raises:
            ValueError: The URL or the format is invalid.
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
        """Return the URL of a run in Dagster's UI; empty if not known."""
        return f"{self.dagster_url}/runs/{run_id}" if self.dagster_url and run_id else ""

    def send(self, alert: Alert) -> None:
        """Send an alert.

        Raises:
            WebhookError: The alert was not delivered.
        """
        import requests  # imported only when needed: it slows the start of a run's process

        body = slack_body(alert) if self.format == "slack" else asdict(alert)
        host = urlsplit(self.url).hostname
        try:
            response = requests.post(self.url, json=body, timeout=SECONDS)
        except requests.RequestException as error:
            # Its message contains the URL, and so does that of its cause.
            raise WebhookError(f"the web hook at {host}: {type(error).__name__}") from None
        if not response.ok:
            raise WebhookError(f"the web hook at {host} answered {response.status_code}")


def slack_body(alert: Alert) -> dict[str, str]:
    """Return the request body for Slack; markup in the alert's texts is escaped."""
    lines = [f"*{_escaped(alert.title)}*"]
    if alert.reason:
        lines += [f"> {_escaped(line)}" for line in alert.reason.splitlines()]
    if alert.link:
        lines.append(f"<{_escaped(alert.link)}|Open in Dagster>")
    return {"text": "\n".join(lines)}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
