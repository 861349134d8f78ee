"""The local venue: an exchange for development and tests that unmodified ccxt trades on as on Binance spot.

errors      Binance's error codes and texts
symbols     what can be traded, and the filters an order must pass
orders      orders and trades of the venue
book        price-time priority
accounts    keys and balances
engine      placing, matching, triggering, cancelling
market      a seeded synthetic market
limits      request weight and order counts
faults      what can be made to go wrong, to order
dialect     the engine's records in Binance's JSON
rest        REST routes
streams     market streams, user data streams, the WebSocket API
control     the record, the faults and the market, for tests and the dev stack
server      one venue on one port
process     a venue as a child process
"""
