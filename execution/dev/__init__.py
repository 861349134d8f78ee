"""`execution dev`: everything locally in one command.

stack       the servers: state store, Pub/Sub, venues, and the service itself
strategy    a demo strategy that publishes real signals and commands
watch       what the events tell, for the view and the audit
view        the live terminal view, and plain progress lines where there is no terminal
audit       whether signals, orders, fills and events add up
main        the command
"""
