"""Writes `byline.json`, the Grafana dashboard, from `panels`: `python -m helm.dashboards.build`."""

import json
import sys
from itertools import count
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import (
    ReduceDataOptions,
    StackingConfig,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)

from helm.dashboards.panels import ROWS
from helm.dashboards.queries import Kind, Panel

OUTPUT = Path(__file__).parent / "byline.json"
DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
PANEL_HEIGHT = 7
NUMBER_HEIGHT = 4


def build() -> str:
    """The dashboard's JSON text, the same on every run."""
    board = (
        dashboard.Dashboard("Byline")
        .uid("byline")
        .description("Requests, attribution and the books of one Byline installation.")
        .tags(["byline"])
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-1h", "now")
        .refresh("30s")
        .readonly()
        .with_variable(
            dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
        )
    )
    identifiers = count(1)
    for row in ROWS:
        board.with_row(dashboard.Row(row.title).id(next(identifiers)))
        for panel in row.panels:
            board.with_panel(_drawn(panel).id(next(identifiers)))
    return json.dumps(board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _drawn(panel: Panel) -> Any:  # noqa: ANN401 - either of two generated builders
    drawn = _number(panel) if panel.kind is Kind.NUMBER else _lines(panel)
    drawn.title(panel.title).description(panel.description).unit(panel.unit)
    drawn.datasource(DATASOURCE).span(panel.width)
    # The SDK leaves reference ids empty, and Grafana then shows only the last query of a panel.
    for letter, query in zip(ascii_uppercase, panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expression).legend_format(query.legend)
        target.ref_id(letter).datasource(DATASOURCE)
        drawn.with_target(target.instant() if panel.kind is Kind.NUMBER else target.range())
    return drawn


def _number(panel: Panel) -> stat.Panel:
    drawn = stat.Panel().height(NUMBER_HEIGHT)
    drawn.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))
    if panel.red_from is not None:
        steps = [Threshold(value=None, color="green"), Threshold(value=panel.red_from, color="red")]
        drawn.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    return drawn


def _lines(panel: Panel) -> timeseries.Panel:
    legend = VizLegendOptions().display_mode(LegendDisplayMode.LIST).show_legend(True)
    drawn = timeseries.Panel().height(PANEL_HEIGHT)
    if not panel.may_be_negative:
        drawn.min(0)
    drawn.legend(legend.placement(LegendPlacement.BOTTOM))
    drawn.tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    if panel.kind is Kind.STACKED:
        drawn.fill_opacity(30).stacking(StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return drawn


def main() -> None:
    """Write the file."""
    OUTPUT.write_text(build())
    sys.stdout.write(f"{OUTPUT.name} written\n")


if __name__ == "__main__":
    main()
