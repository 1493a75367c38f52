"""A measurement as one JSON object, as a page of markdown, and as a picture (SVG)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape

from byline.canonical import Json
from byline.fidelity.evaluation import Judgement
from byline.fidelity.frontier import Point
from byline.fidelity.methods import FORWARD
from byline.fidelity.resampling import Figure

WIDTH, LINE, LEFT, RIGHT = 760, 26, 210, 60
LOW, HIGH = -0.2, 1.0  # the picture's axis


def as_json(judgements: Mapping[str, Judgement], points: Sequence[Point] = ()) -> dict[str, Json]:
    """By kind of answers, and of cheaper tangents: every figure, rounded to four decimals."""
    found = {kind: rounded(asdict(judgement)) for kind, judgement in judgements.items()}
    return {**found, "frontier": rounded([asdict(point) for point in points])}


def rounded(value: Json) -> Json:
    """Every number in it, rounded to four decimals."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, Mapping):
        return {str(key): rounded(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each) for each in value]
    return value


def markdown(
    title: str,
    facts: Mapping[str, Json],
    judgements: Mapping[str, Judgement],
    points: Sequence[Point] = (),
) -> str:
    """A page: what was measured, a table for each kind of answers, and the gains."""
    lines = [f"# Fidelity of {title}", ""]
    lines += [f"* {name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    for kind, judgement in judgements.items():
        lines += ["", *_table(kind, judgement)]
    lines += _frontier(points)
    lines += [
        "",
        "LDS: Spearman correlation over coalitions of summed scores and log-probabilities under "
        "adapters trained on the coalition alone, averaged over answers; 95 % bootstrap intervals "
        "over answers and coalitions. By chance: the same with the contributors' scores handed "
        "round. Payout error: half the sum of |share - retrained leave-one-out share|.",
    ]
    if facts.get("forward_is_the_truth_of_pay"):
        lines.append(
            f"With one training order the {FORWARD}'s effects are themselves what pay is compared "
            "with, so its payout error is 0 and its correlation 1 by construction."
        )
    return "\n".join(lines) + "\n"


def _table(kind: str, judgement: Judgement) -> list[str]:
    rows = [
        f"| {name} | {each.variant} | {told(each.lds)} | {told(each.lds_permuted)} "
        f"| {told(each.payout_error)} | {each.payout_error_aggregate:.2f} "
        f"| {each.effect_correlation:.2f} | {each.cost} |"
        for name, each in judgement.methods.items()
    ]
    gains = [
        f"* tangent's LDS less that of {gain.over}: {told(gain.lds)}" for gain in judgement.gains
    ]
    gains += [
        f"* {name}'s payout error as it is paid, by rows: {told(each.payout_error_paid)}"
        for name, each in judgement.methods.items()
        if each.payout_error_paid is not None
    ]
    if judgement.payout_ratio is not None:
        gains.append(f"* tangent's payout error over that of rows: {judgement.payout_ratio:.2f}")
    return [
        f"## {kind}: {judgement.answers} answers, {judgement.coalitions} coalitions",
        "",
        "| method | tuned variant | LDS | by chance | payout error | in aggregate "
        "| correlation with effects | cost |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        *gains,
    ]


def _frontier(points: Sequence[Point]) -> list[str]:
    if not points:
        return []
    return [
        "",
        "## Cheaper vectors, served answers",
        "",
        "| kept of each contributor's vector | bytes | LDS | payout error |",
        "|---|---|---|---|",
        *(
            f"| {point.form} | {point.bytes_a_contributor:,} | {told(point.lds)} "
            f"| {point.payout_error:.2f} |"
            for point in points
        ),
    ]


def told(figure: Figure) -> str:
    """A figure with its interval, to two decimals."""
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"


def picture(title: str, judgements: Mapping[str, Judgement]) -> str:
    """LDS with its interval, a line a method and a panel a kind of answers, as SVG."""
    parts: list[str] = []
    top = 34
    for kind, judgement in judgements.items():
        parts.append(_text(LEFT, top + 14, f"{kind} ({judgement.answers} answers)", weight="bold"))
        top += LINE
        bottom = top + LINE * len(judgement.methods)
        parts += _axis(top, bottom)
        for name, each in judgement.methods.items():
            parts += _interval(top + LINE / 2, name, each.lds)
            top += LINE
        top += 40
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" '
        f'viewBox="0 0 {WIDTH} {top}" font-family="sans-serif" font-size="13">\n'
        f'<rect width="{WIDTH}" height="{top}" fill="white"/>\n'
        + _text(12, 22, f"LDS by method: {title}", weight="bold")
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _across(value: float) -> float:
    inside = min(max(value, LOW), HIGH)
    return LEFT + (inside - LOW) / (HIGH - LOW) * (WIDTH - LEFT - RIGHT)


def _axis(top: float, bottom: float) -> list[str]:
    made = []
    for tick in (-0.2, 0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        x = _across(tick)
        colour = "#888" if tick == 0 else "#ddd"
        made.append(f'<path d="M{x:.1f} {top}V{bottom}" stroke="{colour}"/>')
        made.append(_text(x - 10, bottom + 16, f"{tick:.1f}"))
    return made


def _interval(y: float, name: str, figure: Figure) -> list[str]:
    low, high, at = _across(figure.low), _across(figure.high), _across(figure.value)
    return [
        _text(12, y + 4, name),
        f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="#27c" stroke-width="3"/>',
        f'<circle cx="{at:.1f}" cy="{y}" r="5" fill="#125"/>',
        _text(WIDTH - RIGHT + 14, y + 4, f"{figure.value:.2f}"),
    ]


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-weight="{weight}">{escape(text)}</text>'
