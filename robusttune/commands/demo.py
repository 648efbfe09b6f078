"""The command ``demo``: serve a web page to try a tuned model."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec

from robusttune.checkpoint_file import checkpoint_path
from robusttune.commands.plain_parser import PlainParser
from robusttune.commands.quiet import quiet
from robusttune.errors import RobustTuneError
from robusttune.inference import load
from robusttune.interruption import Stopped
from robusttune.page.examples import load_examples
from robusttune.terminal import print_line

PORT = 7860


def run(args: list[str]) -> None:
    """Run the command until Ctrl-C.

    Args:
        args: Arguments of the command line after ``demo``.

    Raises:
        RobustTuneError: The checkpoint or the table cannot be read, the address cannot be used, or a package is
            missing.
    """
    parser = PlainParser(prog="robusttune demo", description="Serve a web page to try a tuned model.")
    parser.add_argument("--ckpt_path", required=True, help="The folder of a run, or a checkpoint.")
    parser.add_argument("--host", default="127.0.0.1", help="Address to listen at; by default only this machine.")
    parser.add_argument("--port", type=int, default=PORT, help=f"Port, by default {PORT}; 0 for a free one.")
    parser.add_argument("--examples", help="Table with samples to try: columns image and text, and label if known.")
    given = parser.parse_args(args)
    if find_spec("aiohttp") is None:
        raise RobustTuneError("the page needs aiohttp: pip install 'robusttune[demo]'")
    from robusttune.page.server import LOOPBACK, Page, application, serve

    with quiet():
        model = load(given.ckpt_path)
    page = Page(model, name_of(given.ckpt_path), load_examples(given.examples, model.classes))

    def started(port: int) -> None:
        """Print the address of the page."""
        host = f"[{given.host}]" if ":" in given.host else given.host
        print_line(f"the page is at http://{host}:{port}/ (Ctrl-C ends it)")
        if given.host not in LOOPBACK:
            print_line("it is open to everyone who reaches this address, without a password")

    try:
        asyncio.run(serve(application(page, given.host), given.host, given.port, started))
    except (KeyboardInterrupt, Stopped):
        print_line("the page is closed")


def name_of(path: str) -> str:
    """Return the name of a model on the page: the end of its path, without what all runs have in common.

    Example:
        >>> name_of("runs/demo/0/checkpoints/best.ckpt")
        'demo/0'
    """
    parts = checkpoint_path(path).absolute().parts
    if parts[-2] == "checkpoints":
        return "/".join(parts[-4:-2])
    return parts[-1].removesuffix(".ckpt")
