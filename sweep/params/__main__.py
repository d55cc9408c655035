"""``python -m sweep.params``: a LoRA's trained numbers, memory and arithmetic on a model, without its weights."""

import argparse
import json
import sys
from collections.abc import Sequence

from sweep.errors import ConfigError
from sweep.params.account import Account, full, lora
from sweep.params.shapes import NAMED, shape_of
from sweep.text import table

FOOTNOTE = """
saved: the trained numbers as a float32 file. optimizer: their gradients and Adam's two moments, float32.
FLOPs/token: the linear layers, forward and backward; attention scores come on top.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line for each model, targets and rank, below that of full fine-tuning; 1 for a user's mistake."""
    options = _parser().parse_args(arguments)
    try:
        accounts: list[Account] = []
        for shape in map(shape_of, options.model):
            accounts.append(full(shape))
            accounts += [lora(shape, targets, rank) for targets in options.targets for rank in options.rank]
    except ConfigError as error:
        print(f"sweep.params: {error}".replace("adapter.targets =", "--targets"), file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([account.as_dict() for account in accounts], indent=1))
    else:
        print(report(accounts))
    return 0


def report(accounts: Sequence[Account]) -> str:
    """The accounts as a table; each FLOPs figure also as a share of its model's full fine-tuning."""
    whole = {account.model: account.flops_per_token for account in accounts if account.rank is None}
    header = ("model", "targets", "rank", "trainable", "total", "ratio", "saved", "optimizer", "FLOPs/token", "of full")
    rows = [
        (
            one.model,
            one.targets,
            str(one.rank or "–"),
            f"{one.trainable_params:,}",
            f"{one.total_params:,}",
            f"{one.trainable_ratio:.4%}",
            _bytes(one.saved_bytes),
            _bytes(one.optimizer_bytes),
            _si(one.flops_per_token),
            f"{one.flops_per_token / whole[one.model]:.1%}",
        )
        for one in accounts
    ]
    return table(header, rows, left=2) + "\n" + FOOTNOTE.rstrip("\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sweep.params",
        description="Trained numbers, memory and arithmetic of a LoRA on a model, from its shapes alone.",
        epilog=f"Known models: {', '.join(NAMED)}.",
    )
    parser.add_argument(
        "--model",
        required=True,
        type=_list,
        metavar="MODEL[,MODEL]",
        help="known models, or folders with a Hugging Face config.json",
    )
    parser.add_argument(
        "--targets",
        nargs="+",
        default=["all_linear"],
        metavar="TARGETS",
        help="q_proj,v_proj, a regular expression, or one of all_linear, attention, mlp, qv; several "
        "with a space between (default: all_linear)",
    )
    parser.add_argument("--rank", type=_ranks, default=[8], metavar="RANK[,RANK]", help="default: 8")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    return parser


def _list(text: str) -> list[str]:
    return [item for item in text.split(",") if item]


def _ranks(text: str) -> list[int]:
    ranks = [int(item) for item in _list(text)]
    if not ranks or min(ranks) < 1:
        raise argparse.ArgumentTypeError("ranks are whole numbers from 1")
    return ranks


def _bytes(count: float) -> str:
    return f"{_si(count)}B"


def _si(count: float) -> str:
    for unit in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} T"


if __name__ == "__main__":
    sys.exit(main())
