"""What the coordinator counts, by name; the web layer shows it to Prometheus."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Metrics:
    """Since the process began. ``sessions`` is a gauge, all others only grow."""

    commits: int = 0
    database_failures: int = 0
    enrolments: int = 0
    enrolments_refused: int = 0
    admissions: int = 0
    admissions_refused: int = 0
    publishes: int = 0
    reports: int = 0
    renewals: int = 0
    revocations: int = 0
    vanished: int = 0
    signals: int = 0
    signals_undelivered: int = 0
    notices: int = 0
    catch_ups: int = 0
    """Times notices of other replicas may have been missed, and the maps were compared instead."""
    map_loads: int = 0
    map_bytes_packed: int = 0
    key_alarms: int = 0
    """Node keys that were seen at two places at once."""
    tokens_refused: int = 0
    sessions: int = 0
