"""Which of its inputs a node takes in a step: as many as are derived, sampled from logits of the edges.

After ROME (Wang et al., arXiv 2011.11233), which keeps the logits of the edges apart from those of the
operations: the network that is trained then has as many edges as the one that is derived.
"""

from __future__ import annotations

from gdas_tf.numerics.lazy import tf
from gdas_tf.spaces.base import SearchSpace
from gdas_tf.strategies.sampling import Sampler
from gdas_tf.supernet.paths import Sampled

_NEVER = -1e9


class Topology:
    """The edges of a cell by node, of which each node takes `inputs_per_node`, or all if it has fewer.

    Args:
        space: The search space.
    """

    def __init__(self, space: SearchSpace) -> None:
        import numpy as np

        self.off, self.kept = space.off, space.inputs_per_node
        most = space.most_inputs
        # The edges of the nodes as rows of one length: which edge stands in each place, and whether one does.
        self.rows = np.zeros((space.nodes, most), np.int32)
        self.padding = np.full((space.nodes, most), _NEVER, np.float32)
        for edge, (node, source) in enumerate(space.edges):
            self.rows[node, source], self.padding[node, source] = edge, 0.0
        self.places = np.array([node * most + source for node, source in space.edges], np.int32)

    def sample(
        self,
        logits: tf.Tensor,
        temperature: tf.Tensor | float,
        noise: tf.Tensor,
        sampler: Sampler = "gumbel",
    ) -> tf.Tensor:
        """The gates of the edges: one for each that a node takes, zero for each that is off.

        The inputs of a node are those of the largest log-probabilities plus Gumbel noise, which draws them
        one after the other without putting any back (Kool, van Hoof & Welling, arXiv 1903.06059). The
        gradient is that of the softmax over the node's edges, in the same way as that of the operations on an
        edge (`sampling.sample_gumbel`, `sample_direct`).

        Args:
            logits: float32 [..., E].
            temperature: Positive scalar tau.
            noise: float32 [..., E], of `sampling.gumbel_noise`.
            sampler: "gumbel" or "direct".

        Returns:
            float32 [..., E].
        """
        rows, drawn = self._by_node(logits), self._by_node(noise)
        if sampler == "gumbel":
            order = tf.nn.log_softmax(rows) + drawn
            soft = tf.nn.softmax(order / temperature)
        else:
            order = tf.nn.log_softmax(rows / temperature) + drawn
            soft = tf.nn.softmax(rows / temperature)
        on = self._largest(order)

        @tf.custom_gradient
        def gate(x: tf.Tensor):
            return tf.identity(on), lambda gradient: gradient

        return gate(self._by_edge(soft))

    def most_probable(self, logits: tf.Tensor) -> tf.Tensor:
        """The gates of the edges of the largest logits, float32 [..., E], without chance."""
        return self._largest(self._by_node(logits))

    def switch(self, sample: Sampled, gates: tf.Tensor) -> Sampled:
        """A sample with the edges off whose gates are zero; the gates of the others have gradients too."""
        on = tf.stop_gradient(gates)
        return Sampled(
            tf.where(on > 0.5, sample.index, self.off),
            sample.soft,
            sample.gate * gates,
            None if sample.others is None else sample.others * on,
        )

    def entropy(self, logits: tf.Tensor) -> tf.Tensor:
        """Mean entropy over the nodes of the softmax over a node's edges, float32 [E], a scalar in nats."""
        log_probabilities = tf.nn.log_softmax(self._by_node(logits))
        return -tf.reduce_mean(tf.reduce_sum(tf.exp(log_probabilities) * log_probabilities, -1))

    def _by_node(self, values: tf.Tensor) -> tf.Tensor:
        """[..., E] as [..., nodes, inputs], very low where a node has no edge."""
        return tf.gather(values, self.rows, axis=-1) + self.padding

    def _by_edge(self, rows: tf.Tensor) -> tf.Tensor:
        """The reverse of `_by_node`."""
        flat = tf.reshape(rows, [*rows.shape[:-2], self.rows.size])
        return tf.gather(flat, self.places, axis=-1)

    def _largest(self, rows: tf.Tensor) -> tf.Tensor:
        """One for each edge that is among the largest of its node, else zero: float32 [..., E]."""
        _, chosen = tf.math.top_k(rows, self.kept)
        return self._by_edge(tf.reduce_max(tf.one_hot(chosen, self.rows.shape[1]), -2))
