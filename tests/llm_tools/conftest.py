"""A server that misbehaves, and a decision to ask for."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from tests.llm_tools.fault_server import fault_server


class Decision(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    lr: float = Field(gt=0, le=0.1)
    steps: int = Field(ge=1, le=5)
    rule: Literal["uniform", "oort"]


@pytest.fixture
def faults():
    with fault_server() as (address, seen):
        yield address, seen
