"""The command line: a thin door into the library, one module a command, none imported before it is needed."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem, shell_complete

from attenua._version import __version__
from attenua.cli import errors

__all__ = ["COMMANDS", "group", "main"]

COMMANDS: tuple[tuple[str, str], ...] = (
    ("sample", "Generate images."),
    ("upscale", "Enlarge pictures."),
    ("inpaint", "Fill holes in pictures."),
    ("edges", "Draw the edges of pictures."),
    ("saliency", "Find what stands out in pictures."),
    ("train", "Train a model, or go on with one that was interrupted."),
    ("evaluate", "Score a model or a folder of images (FID, KID)."),
    ("fit-grid", "Find the best times of few network calls for a model."),
    ("plot", "Draw a report's figures against network calls."),
    ("export", "Write a model as one file of weights with its configuration."),
    ("models", "List the models that are shipped and cached."),
    ("info", "Show a model's configuration, record, terms and scores."),
    ("data", "Bring a data set to this machine, checked against its sums."),
)
"""Every command and its line of help: `attenua --help` reads this and imports no command (hence no torch)."""


class LazyGroup(click.Group):
    """A group whose command NAME is the object `command` of the module attenua.cli.NAME ("-" as "_")."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        return [name for name, _ in COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None for an unknown name, an error for one that this installation lacks."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module = f"{__name__}.{cmd_name.replace('-', '_')}"
        try:
            command = importlib.import_module(module).command
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
            raise click.ClickException(f"the command {cmd_name} is not part of this installation") from None
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the section "Commands" of the help from the table."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name from the table."""
        own = [CompletionItem(name, help=line) for name, line in COMMANDS if name.startswith(incomplete)]
        return own + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments begin with; the error for an unknown one lists the known ones."""
        names = self.list_commands(ctx)
        if not ctx.resilient_parsing and args[0] not in names:
            raise click.UsageError(errors.unknown("command", args[0], names), ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=LazyGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`attenua COMMAND --help` explains a command. Results go to stdout, progress and errors to stderr.",
)
@click.version_option(__version__, prog_name="attenua", message="%(prog)s %(version)s")
def group() -> None:
    """Diffusion models with analytical image attenuation: generate, train, evaluate."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; what goes wrong is told in one line on stderr.

    arguments: those of the command line where None. Exit codes: 0 done; 1 done, but for some inputs that were bad;
    2 wrong usage, or an input, output or device that cannot be used; 70 an error of the program; 130 interrupted.
    """
    try:
        instruction = os.environ.get("_ATTENUA_COMPLETE")
        if instruction:
            return shell_complete(group, {}, "attenua", "_ATTENUA_COMPLETE", instruction)
        with group.make_context("attenua", list(sys.argv[1:] if arguments is None else arguments)) as context:
            group.invoke(context)
        sys.stdout.flush()  # here, and not at the interpreter's exit, a closed pipe can still be handled
    except click.exceptions.Exit as request:
        return request.exit_code
    except BrokenPipeError:
        errors.silence_stdout()
        return errors.BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        return errors.report(error)
    return 0
