"""A round: which parked car computes which row groups next, with the reason, the price and the proof. Pure."""
