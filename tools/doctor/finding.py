"""What the doctor says: one line."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line: whether it is well, what was looked at, and what there is or what to do."""

    well: bool
    subject: str
    told: str

    def __str__(self) -> str:
        return f"{'ok ' if self.well else 'fix'}  {self.subject:20} {self.told}"
