"""The LSTM of Andrychowicz et al. 2016 on the tasks of its paper."""
