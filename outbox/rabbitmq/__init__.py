"""RabbitMQ to Kafka: the relay, and the only package that imports the AMQP client.

A message is taken from a queue, claimed in Redis, sent to Kafka, marked in Redis and acknowledged,
in this order and many at a time. docs/relay.md is the whole of it.

body, properties       what a message says, byte for byte
deliveries             what is in hand, and which acknowledgements are due
claims, lease          who sends an event id (Redis)
breaker, watch         whether Kafka is well
consuming, dead_letters  the two connections to RabbitMQ
sending                what is under way to Kafka, what it refused
relay                  the loop that joins them
letters                the dead-letter queue as its command sees it
"""
