"""Programs around the project, started by the files without an ending: tests by hand, attacks, benchmarks, figures.

harness         swarms of real node processes, and what programs and tests do with them
scenarios       what a swarm on this machine makes of a prompt, whatever happens to it
attacks         strangers, members and serving peers that attack real nodes
soaking         an hour of random faults
networks        nodes in network namespaces, and many nodes at once
membership_lab  membership of a swarm in simulated time
privacy_lab     what peers could learn, tapped and computed
benchmarks      figures of one machine
story           the training of the built-in model
documents       what README.md and SPEC.md show, drawn from the code and from a real run
"""
