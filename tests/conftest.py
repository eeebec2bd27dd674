"""The processor shows itself as eight devices, before JAX first looks, for what is sharded."""

import jax

jax.config.update("jax_num_cpu_devices", 8)
