"""The systems that are compared, one a file."""

from curvature_systems.curvlinops_system import Curvlinops
from curvature_systems.eigenthings_system import Eigenthings
from curvature_systems.ours import TrainVitals, TrainVitalsDefault
from curvature_systems.pyhessian_system import PyHessianSystem

OURS = TrainVitals()
PYHESSIAN, CURVLINOPS, EIGENTHINGS = PEERS = PyHessianSystem(), Curvlinops(), Eigenthings()
SYSTEMS = [OURS, *PEERS]
WITH_DEFAULT = [OURS, TrainVitalsDefault(), *PEERS]
