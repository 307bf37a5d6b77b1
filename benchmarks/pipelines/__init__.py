"""What the suite's runs train on and with; importing any room registers what all tasks share."""

from . import precision as precision
from . import schedules as schedules
