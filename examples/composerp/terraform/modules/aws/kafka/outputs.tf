output "address" {
  description = "The brokers that clients ask first."
  value       = aws_msk_cluster.this.bootstrap_brokers_sasl_scram
}
