"""Servers on the loopback for tests of the network: nothing here reaches the internet."""
