"""One torch thread: two test runs on two cores would fight over a pool of threads."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_torch_thread() -> None:
    torch.set_num_threads(1)
