"""Accept or refuse an order, estimate it, freeze it."""

from fleetbatch.orders.estimate import Estimate, estimate_order
from fleetbatch.orders.freeze import (
    AlreadyPublished,
    freeze_order,
    order_from_json,
    order_to_json,
    read_model,
    stored_order,
)
from fleetbatch.orders.parse import Known, load_order, model_file, parse_form

__all__ = [
    "AlreadyPublished",
    "Estimate",
    "Known",
    "estimate_order",
    "freeze_order",
    "load_order",
    "model_file",
    "order_from_json",
    "order_to_json",
    "parse_form",
    "read_model",
    "stored_order",
]
