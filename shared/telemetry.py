"""Logs: each line is an event's name and fields, for people or for machines."""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from shared.settings import ProcessSettings

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_QUIET = ("faststream", "urllib3", "asyncio", "uvicorn.access", "httpx")
_SILENT = ("aiokafka",)


def configure_logging(service: str, settings: ProcessSettings) -> None:
    """Send every log line of the process to standard output, those of the libraries included."""

    def add_service(_logger: object, _method: str, event: EventDict) -> EventDict:
        event.setdefault("service", service)
        return event

    people = settings.log_format == "console"
    stamp = structlog.processors.TimeStamper(fmt="%H:%M:%S" if people else "iso", utc=not people)
    shared: list[Any] = [structlog.contextvars.merge_contextvars, structlog.stdlib.add_log_level, stamp]
    if not people:
        shared += [add_service, structlog.processors.format_exc_info]
    renderer: Any = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stdout.isatty(),
            pad_event_to=28,
            # structlog's pretty traceback prints local variables, and with them passwords and keys.
            exception_formatter=structlog.dev.plain_traceback,
        )
        if people
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.log_level]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(_LEVELS[settings.log_level])
    # These libraries log a line a second while the broker or the store is unavailable. Our own code logs an outage once.
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.ERROR, _LEVELS[settings.log_level]))
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a logger, to be called as `log.info("tune.claimed", tune_id=...)`."""
    return structlog.get_logger(name)
