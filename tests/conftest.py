"""What every test process needs."""

import torch

# Test processes with a thread per core each wait for one another: the same tests took 100 times longer.
torch.set_num_threads(1)
