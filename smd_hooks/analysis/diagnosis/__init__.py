"""Why a layer is off its equilibrium, layer by layer and in one line for a run."""
