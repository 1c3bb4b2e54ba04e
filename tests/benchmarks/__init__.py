"""What asok_trace costs, as ratios to what it competes with: ``make bench``.

Every number is a ratio of two things measured in the same processes, in turns, because absolute
times drift by a fifth on a busy machine while their ratios repeat. The thing on the other side
is either a *floor*, the least that could do the job, or the usual recipe.

    measure.py       turns, medians and quartiles; the worker processes
    worker.py        one process that runs slices of one setting, on demand
    lines.py         a structlog line: inject, its floor, merge_contextvars
    records.py       a standard library record: stamp_logging() and its floor
    requests.py      an Asok request: bare, floor, instrumented, asok's TracingMiddleware
    memory.py        bytes per open scope, what is left after it, growth of the process
    instructions.py  the same in instructions, counted by valgrind (``--ir``)
    rows.py          which comparison belongs to which goal
    table.py         the printed table
"""
