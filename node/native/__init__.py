"""The two ends of an exchange in C, and what they call.

calls.h       messages of libzmq, SHA-256, numbers in headers, time
direct.c      the client's end: one answer, waited for, judged and merged
shares.c      the peer's end: shares of one connection, computed and answered
build_native  builds both at install
library       finds the functions that they call
mail          takes over messages that they leave to Python
"""
