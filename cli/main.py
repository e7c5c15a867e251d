"""The entry point: finds the command, and turns every ending into an exit code (0-4, 130, 141)."""

# Only click, and what it has imported itself, at the top: `graphkit --help` has to feel instant, so a command is
# imported when it is invoked.
from __future__ import annotations

import atexit
import gc
import io
import os
import sys

import click

COMMANDS = {
    "convert": "Convert a model to ONNX or a TensorRT engine, and prove it equal.",
    "validate": "Compare models on the same inputs, and say whether they agree.",
    "locate": "Find the first tensor at which two models part.",
    "reduce": "Find a smallest part of a model that still fails.",
    "optimize": "Rewrite an ONNX graph with fewer nodes, and prove it the same.",
    "quantize": "Bring an ONNX model to fp16, bf16, int8, fp8 or int4, and compare.",
    "edit": "Change what an ONNX model takes and gives; cut, join, mark.",
    "build": "Build an engine from an ONNX file, as it is.",
    "refit": "Put new weights into a TensorRT engine, and compare.",
    "cache": "Look at the engines that were built before, or remove them.",
    "bench": "Time models side by side, on the same inputs.",
    "inspect": "Say what a model file is, what it holds and what it costs.",
    "check": "Say whether a target will build a model, or why not.",
    "hash": "Print digests that renaming and reordering do not change.",
    "diff": "Say how two models differ, whatever their values are called.",
    "textconv": "Print a model as text that renaming does not change, for git.",
    "git-diff": "Show a changed model, as git's external diff.",
    "git": "Let git show changes of models.",
    "doctor": "Say what this machine can build and run, and what it lacks.",
    "explain": "Explain an error code, such as GK104.",
}
"""Name of each command, also that of its module and its function (`_` for `-`); and its line in `--help`."""

INTERRUPTED = 130
READER_GONE = 141


def main(args: list[str] | None = None) -> int:
    """Run one command line and return its exit code; never raises, never shows a traceback unless `-vv` asks."""
    if "_GRAPHKIT_COMPLETE" in os.environ:
        graphkit.main(prog_name="graphkit")  # click's own shell completion, which exits
    if args is None:
        _collect_rarely()
    session = Session()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name from a model must not break an ASCII terminal
    try:
        with graphkit.make_context("graphkit", list(sys.argv[1:] if args is None else args), obj=session) as context:
            graphkit.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.exceptions.NoArgsIsHelpError as nothing_asked:
        click.echo(nothing_asked.format_message(), err=True)
        return nothing_asked.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit and would complain: there must be something to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except Exception as exception:
        return _failed(exception, session)
    return 0


def _collect_rarely() -> None:
    """Let the garbage collector run once in 50,000 new objects instead of 700, and not at all when the process ends:
    a command makes few cycles, and looking for them took a sixth of `inspect` on a small model."""
    gc.set_threshold(50_000)
    atexit.register(gc.freeze)


class Session:
    """What a command tells `main` about itself: `verbose`, the number of `-v`."""

    def __init__(self) -> None:
        self.verbose = 0


def _failed(exception: Exception, session: Session) -> int:
    from . import failure

    error = failure.as_error(exception)
    failure.show(error, exception, verbose=session.verbose)
    return error.exit_code


class _LazyGroup(click.Group):
    """Knows its commands by name and imports one only when it is invoked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module = cmd_name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"graphkit_cli.{module}"), module)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS)
            ctx.fail(f"no such command {args[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        name, command, rest = super().resolve_command(ctx, args)
        # A broken configuration must not keep anybody from reading the help.
        if name is not None and command is not None and "--help" not in rest:
            from . import config

            ctx.default_map = {name: config.defaults(name, command, COMMANDS)}
        return name, command, rest


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from graphkit import __version__

        click.echo(f"graphkit {__version__}")
        ctx.exit()


@click.group(cls=_LazyGroup)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Print the version."
)
def graphkit() -> None:
    """Convert trained models to ONNX and TensorRT, with proof that they still compute the same thing.

    Exit codes: 0 done, 1 the answer is no, 2 a bad request or file, 3 this machine lacks something, 4 a bug or a
    crash in native code.
    """


if __name__ == "__main__":
    sys.exit(main())
