"""Parts put one after the other are the whole, wherever it is cut."""

import pytest
import torch
import torchvision
from torch import nn
from torch.fx import GraphModule

from tests.support.arrays import small_net
from tests.workers.graph.networks import NETWORKS, trained
from workers.graph.archive import trace_shape, write_archive
from workers.graph.cutting import block_ends, cut_points, input_of, output_of, part

pytestmark = pytest.mark.filterwarnings("ignore:.*lift_fresh_copy")
