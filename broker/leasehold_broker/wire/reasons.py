"""Words of the domain and their proto numbers: reasons, modes, states, metrics. Owns the pairing of the two.

A number this build does not know is refused, never taken for its neighbour.
"""

from leasehold.v1 import types_pb2
from leasehold_broker.domain.amounts import Metric
from leasehold_broker.domain.lease import LeaseState, Mode
from leasehold_broker.domain.reasons import Reason

_REASONS = {reason: types_pb2.Reason.Value(f"REASON_{reason.value}") for reason in Reason}
_MODES = {mode: types_pb2.Mode.Value(f"MODE_{mode.name}") for mode in Mode}
_MODES_BACK = {number: mode for mode, number in _MODES.items()}
_STATES = {state: types_pb2.LeaseState.Value(f"LEASE_STATE_{state.name}") for state in LeaseState}
_METRICS = {metric: types_pb2.Metric.Value(f"METRIC_{metric.name}") for metric in Metric}
_METRICS_BACK = {number: metric for metric, number in _METRICS.items()}


def reason_to_proto(reason: Reason | None) -> types_pb2.Reason.ValueType:
    """The proto number; REASON_UNSPECIFIED for None."""
    return types_pb2.REASON_UNSPECIFIED if reason is None else _REASONS[reason]


def mode_to_proto(mode: Mode) -> types_pb2.Mode.ValueType:
    """The proto number."""
    return _MODES[mode]


def mode_from_proto(number: int) -> Mode | None:
    """The mode, or None when unspecified or unknown to this build."""
    return _MODES_BACK.get(types_pb2.Mode.ValueType(number))


def state_to_proto(state: LeaseState) -> types_pb2.LeaseState.ValueType:
    """The proto number."""
    return _STATES[state]


def metric_to_proto(metric: Metric) -> types_pb2.Metric.ValueType:
    """The proto number."""
    return _METRICS[metric]


def metric_from_proto(number: int) -> Metric | None:
    """The metric, or None when unspecified or unknown to this build."""
    return _METRICS_BACK.get(types_pb2.Metric.ValueType(number))
