output "address" {
  description = "Where clients connect by the protocol of Kafka."
  value       = "${azurerm_eventhub_namespace.this.name}.servicebus.windows.net:9093"
}
