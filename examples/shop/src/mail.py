"""Mail, sent in the background."""

import time

import structlog

log = structlog.get_logger()


def send_receipt(user_id: int, token: str | None) -> None:
    """Send the receipt of an order. The response that promised it is gone by now."""
    time.sleep(0.05)  # a mail server that takes its time
    log.info("mail sent", to=user_id, token=token)
