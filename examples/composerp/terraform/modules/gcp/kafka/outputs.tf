output "address" {
  description = "The brokers that clients ask first."
  value       = "bootstrap.${var.name}.${var.location}.managedkafka.${google_managed_kafka_cluster.this.project}.cloud.goog:9092"
}
