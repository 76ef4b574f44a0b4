output "address" {
  description = "The address under which clients reach the store."
  value       = google_sql_database_instance.this.private_ip_address
}

output "replica_addresses" {
  description = "The addresses of the read replicas."
  value       = google_sql_database_instance.replica[*].private_ip_address
}
