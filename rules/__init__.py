"""The clinical decision module: pure, standard library only. What others may use is in ``__all__``."""

from rules.alerts import NAMESPACE, AlertDraft, alert_id, alerts_for, review_alert
from rules.assess import assess
from rules.cases import Case, CaseError, case_verdict, read_case, read_cases, verdict_line
from rules.packaged import check_together, find_protocol, find_selectable, packaged
from rules.protocol import MonitoringProtocol, ProtocolError
from rules.protocol_file import parse as parse_protocol
from rules.schedule import Due, due

__all__ = [
    "NAMESPACE",
    "AlertDraft",
    "Case",
    "CaseError",
    "Due",
    "MonitoringProtocol",
    "ProtocolError",
    "alert_id",
    "alerts_for",
    "assess",
    "case_verdict",
    "check_together",
    "due",
    "find_protocol",
    "find_selectable",
    "packaged",
    "parse_protocol",
    "read_case",
    "read_cases",
    "review_alert",
    "verdict_line",
]
