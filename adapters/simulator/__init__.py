"""The local venue: an exchange for development and tests that unmodified ccxt trades on as on Binance spot.

errors         Binance's error codes and texts
symbols        what can be traded, and the filters an order must pass
orders         requests, orders and trades of the venue
book           price-time priority; icebergs show a part
stops          stops and trailing stops that wait for their price
accounts       keys and balances
checks         what a new order must satisfy
engine         placing, matching, triggering, cancelling
candles        candles of the tape, and a seeded history before it
quotes         resting orders of the market's own participants
market         a seeded synthetic market
replay         a market that follows a recorded tape
markets        which of them moves a symbol; pauses, jumps and ramps
limits         request weight and order counts
faults         what can be made to go wrong, to order
dialect        the engine's records in Binance's JSON
rest           signed REST routes
market_routes  REST routes that need no key
streams        connections, user data streams, the WebSocket API
feeds          what the market streams tell
control        the record, the faults and the market, for tests and the dev stack
server         one venue on one port
process        a venue as a child process
"""
