"""What crosses a process boundary: signals, commands, order events, and the records kept of orders.

No I/O here, and no import of the other packages.
"""

import decimal as _decimal

# Quantities may have 28 digits on either side of the point, and a notional is a product of two such numbers: the default
# of 28 digits in all would round it without a word.
_decimal.DefaultContext.prec = 120
_decimal.getcontext().prec = 120
