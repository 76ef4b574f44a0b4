output "name" {
  description = "The name of the cluster."
  value       = google_container_cluster.this.name
}

output "endpoint" {
  description = "The address of the API server."
  value       = google_container_cluster.this.endpoint
}
