r"""Fixed point networks and Jacobian-free backpropagation: FPN and JFB.

=========================  ========================  ===================================
FPN, JFB                   here
=========================  ========================  ===================================
u, u*_d                    z, z_star                 the state, its fixed point
d                          x                         the data
T_Theta(u; d)              ``T(z, x)``               the network operator, see `maps`
gamma                      gamma                     contraction factor of T in z
dT/du                      K                         ``maps.linearise(T, z, x)``
J_Theta = I - dT/du        I - K
p_Theta                    minus what `gradients`    ``gradients(T, z, x, g, jfb)``
                           returns
=========================  ========================  ===================================
"""

from . import examples, maps, theory
from .driver import Solution
from .iteration import AndersonState, State, anderson_steps, iterate, picard_steps
from .maps import ForwardBackward, Jacobian, LinearMap, Map, OneLayer, PeacemanRachford, linearise
from .rules import Implicit, Rule, gradients, implicit, jfb, neumann, rule_named

__all__ = [
    "AndersonState",
    "ForwardBackward",
    "Implicit",
    "Jacobian",
    "LinearMap",
    "Map",
    "OneLayer",
    "PeacemanRachford",
    "Rule",
    "Solution",
    "State",
    "anderson_steps",
    "examples",
    "gradients",
    "implicit",
    "iterate",
    "jfb",
    "linearise",
    "maps",
    "neumann",
    "picard_steps",
    "rule_named",
    "theory",
]
