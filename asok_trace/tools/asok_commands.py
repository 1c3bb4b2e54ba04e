"""Asok's command line: `asok worker` runs its jobs as units of work of the requests they came from.

Named by the entry point group ``asok.commands``, which asok loads for each of its commands. The
worker never imports the application, so nobody else could hook it up.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from asok_trace.core.errors import Piece, contained
from asok_trace.core.hooks import Hook

setting_up = Piece("setting up asok's worker")


def register(_subparsers: Any) -> None:
    """Set up the worker when it starts, and no other command."""
    contained(setting_up, _hook_worker)


def _hook_worker() -> None:
    Hook(import_module("asok.cli.worker"), "_run_worker_loop", _running)


def _running(hook: Hook) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        contained(setting_up, _set_up)
        return hook.original(*args, **kwargs)

    return run


def _set_up() -> None:
    """What `setup` does where nobody calls it: but structlog is left to the modules of the jobs,
    and nothing is kept in memory that nobody could ask for."""
    # Here, so that asok's other commands load none of it.
    from asok_trace import assemble, config, providers
    from asok_trace.core import settings
    from asok_trace.frameworks import base
    from asok_trace.stamp import stdlib

    config.apply_environment()
    import_module("asok.context")
    assemble.install_worker(base.adapter("asok.context"))
    if not stdlib.active():
        stdlib.stamp_logging()
    if providers.named():
        providers.set_up(settings.default().service)
