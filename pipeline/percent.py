"""The one way in which the project writes a share in percent."""


def percent(share: float, decimals: int = 1) -> str:
    """A share as `45.9 %`."""
    return f"{100 * share:.{decimals}f} %"


def interval(low: float, high: float) -> str:
    """A confidence interval as `95 % interval 43.2 % to 48.6 %`."""
    return f"95 % interval {percent(low)} to {percent(high)}"
