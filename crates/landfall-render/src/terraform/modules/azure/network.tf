variable "name" {
  type        = string
  description = "What the names of everything in the network begin with."
}

variable "location" {
  type        = string
  description = "The region."
}

variable "tags" {
  type        = map(string)
  description = "What everything is labelled with."
}

variable "zones" {
  type        = list(string)
  description = "The zones."
}

variable "cidr" {
  type        = string
  description = "The addresses of the network."
  default     = "10.0.0.0/16"
}

resource "azurerm_resource_group" "this" {
  name     = var.name
  location = var.location
  tags     = var.tags
}

resource "azurerm_virtual_network" "this" {
  name                = var.name
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  address_space       = [var.cidr]
  tags                = var.tags
}

# A subnet spans all zones of the region.
resource "azurerm_subnet" "private" {
  name                            = "private"
  resource_group_name             = azurerm_resource_group.this.name
  virtual_network_name            = azurerm_virtual_network.this.name
  address_prefixes                = [cidrsubnet(var.cidr, 4, 1)]
  default_outbound_access_enabled = false
}

resource "azurerm_subnet" "endpoints" {
  name                            = "endpoints"
  resource_group_name             = azurerm_resource_group.this.name
  virtual_network_name            = azurerm_virtual_network.this.name
  address_prefixes                = [cidrsubnet(var.cidr, 8, 8)]
  default_outbound_access_enabled = false
}

# Databases stand in a subnet of their own, which nothing else may use.
resource "azurerm_subnet" "data" {
  name                            = "data"
  resource_group_name             = azurerm_resource_group.this.name
  virtual_network_name            = azurerm_virtual_network.this.name
  address_prefixes                = [cidrsubnet(var.cidr, 8, 9)]
  default_outbound_access_enabled = false

  delegation {
    name = "postgres"

    service_delegation {
      name    = "Microsoft.DBforPostgreSQL/flexibleServers"
      actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
    }
  }
}

resource "azurerm_network_security_group" "this" {
  name                = var.name
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  tags                = var.tags
}

resource "azurerm_subnet_network_security_group_association" "this" {
  for_each                  = { private = azurerm_subnet.private.id, endpoints = azurerm_subnet.endpoints.id, data = azurerm_subnet.data.id }
  subnet_id                 = each.value
  network_security_group_id = azurerm_network_security_group.this.id
}

# A gateway stands in one zone; the loss of its zone cuts off the way out until another takes its place.
resource "azurerm_public_ip" "nat" {
  name                = "${var.name}-nat"
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  allocation_method   = "Static"
  sku                 = "Standard"
  zones               = [var.zones[0]]
  tags                = var.tags
}

resource "azurerm_nat_gateway" "this" {
  name                = var.name
  resource_group_name = azurerm_resource_group.this.name
  location            = var.location
  sku_name            = "Standard"
  zones               = [var.zones[0]]
  tags                = var.tags
}

resource "azurerm_nat_gateway_public_ip_association" "this" {
  nat_gateway_id       = azurerm_nat_gateway.this.id
  public_ip_address_id = azurerm_public_ip.nat.id
}

resource "azurerm_subnet_nat_gateway_association" "this" {
  subnet_id      = azurerm_subnet.private.id
  nat_gateway_id = azurerm_nat_gateway.this.id
}

resource "azurerm_private_dns_zone" "postgres" {
  name                = "${var.name}.private.postgres.database.azure.com"
  resource_group_name = azurerm_resource_group.this.name
  tags                = var.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "postgres" {
  name                  = var.name
  resource_group_name   = azurerm_resource_group.this.name
  private_dns_zone_name = azurerm_private_dns_zone.postgres.name
  virtual_network_id    = azurerm_virtual_network.this.id
  tags                  = var.tags
}

output "resource_group" {
  description = "The resource group."
  value       = azurerm_resource_group.this.name
}

output "network_id" {
  description = "The network."
  value       = azurerm_virtual_network.this.id
}

output "private_subnet_id" {
  description = "The subnet of the nodes."
  value       = azurerm_subnet.private.id
  depends_on  = [azurerm_subnet_nat_gateway_association.this, azurerm_nat_gateway_public_ip_association.this]
}

output "endpoint_subnet_id" {
  description = "The subnet of private endpoints."
  value       = azurerm_subnet.endpoints.id
}

output "data_subnet_id" {
  description = "The subnet of databases."
  value       = azurerm_subnet.data.id
}

output "postgres_zone_id" {
  description = "The private names of databases."
  value       = azurerm_private_dns_zone.postgres.id
  depends_on  = [azurerm_private_dns_zone_virtual_network_link.postgres]
}
