"""Price lists: the one that is shipped is complete, and mistakes are named with their line."""

from __future__ import annotations

import pytest

from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.prices import Prices
from orchestrator.parsing.inputs.price_file import load_prices
from tests.architecture.source import ROOT

GOOD = """\
electricity:
  - {name: here, currency: EUR, per_kwh: 0.2, pue: 1.2, date: 2026-01-31, source: the bill}
apis:
  - name: theirs
    currency: USD
    per_million_input: 0.1
    per_million_output: 0.4
    date: 2026-01-31
    source: their page
"""


def test_a_price_has_its_date_and_source() -> None:
    prices = load_prices(GOOD.encode(), "prices.yaml")
    (here,), (theirs,) = prices.electricity, prices.apis
    assert (here.per_kwh, here.pue, here.currency) == (0.2, 1.2, "EUR")
    assert (theirs.per_million_output, theirs.date, theirs.source) == (
        0.4, "2026-01-31", "their page",
    )  # fmt: skip
    assert prices.source == "prices.yaml"


@pytest.mark.parametrize(
    "old, new, where, what",
    [
        ("per_kwh: 0.2", "per_kwh: -1", "prices.yaml:2", "per_kwh"),
        ("pue: 1.2", "pue: 0.9", "prices.yaml:2", "pue"),
        ("EUR", "euro", "prices.yaml:2", "currency"),
        ("date: 2026-01-31, ", "", "prices.yaml:2", "key 'date' is missing"),
        ("per_million_output", "per_million_out", "prices.yaml:7", "per_million_output"),
        ("source: their page", "source: ''", "prices.yaml:9", "source"),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, where: str, what: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_prices(GOOD.replace(old, new, 1).encode(), "prices.yaml")
    assert where in str(refused.value)
    assert what in str(refused.value)


def test_the_shipped_list_is_found_and_a_name_near_it_is_proposed() -> None:
    catalog = Catalog({"bundled": ROOT}, {})
    prices = catalog.prices("default")
    assert isinstance(prices, Prices)
    assert len({price.per_kwh for price in prices.electricity}) >= 3
    assert prices.apis
    with pytest.raises(UsageError, match="default"):
        catalog.prices("defaults")
